"""Files that survive kills and moves: replaced in one step, locked, named by their content,
known for what they are, read with a word on how far.
"""
