"""Which candidates are best when several things matter: dominance, hypervolume, selection."""
