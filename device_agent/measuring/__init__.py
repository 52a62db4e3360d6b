"""How one request becomes one record: worker, gate, canary, flags, energy."""
