"""The wire format of EdgeNAS: what a host and an agent say to each other."""
