"""What the headers of coded pictures say, read without decoding: a module a codec."""
