"""The types of tensors in gemma.cpp's weight files (``.sbs``): one file a codec.

They know no rows: groups go on over the ends of rows, and only the last group of a tensor may be shorter. So what they take is
flat, any piece of a tensor that begins at a whole number of groups.
"""
