"""What stands in the way of good figures on this board: checks that only look, each with its remedy."""
