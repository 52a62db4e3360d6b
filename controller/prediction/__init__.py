"""What would become of an architecture, told from others, with how sure that is."""
