"""How an output file is laid out: header bytes and the place of every tensor, before any data."""
