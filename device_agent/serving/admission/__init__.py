"""Who is let in: the transport that strangers cannot open, the guard before each call, and pairing."""
