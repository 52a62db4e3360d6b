"""The boards: which there are, how to reach them, what they answer. The only place that sees edgenas.v1."""
