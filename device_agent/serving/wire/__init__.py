"""The one place where protobuf messages become the agent's own types, and back."""
