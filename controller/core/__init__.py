"""The nouns of a search: architectures, networks, objectives, measurements, trials. No torch here."""
