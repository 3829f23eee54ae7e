"""What is particular to weight files of gemma.cpp as outputs: types of tensors, and the entries of the table of contents."""
