"""The `edgenas` command; one file a noun."""
