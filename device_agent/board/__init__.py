"""What the board is and how it is doing, read from the kernel's files below a root path."""
