"""What a policy and each kernel do to an image. `python -m augkit.preview` is the command."""
