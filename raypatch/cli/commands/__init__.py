"""The commands, a file for each subject: each reads its options, calls one function, prints where the result is."""
