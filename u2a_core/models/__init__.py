"""Policy and token reward model."""
