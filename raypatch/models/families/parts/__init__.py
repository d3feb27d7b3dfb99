"""What families are made of: heads, networks over volumes, the sizes a network takes, the memory it keeps."""
