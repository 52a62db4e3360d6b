"""What a network becomes: a module, and the files a device reads."""
