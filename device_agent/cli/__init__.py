"""The command line of the board: `edgenas-agent`."""
