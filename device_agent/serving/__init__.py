"""What callers meet: the gRPC server, the queue, the model cache and the history."""
