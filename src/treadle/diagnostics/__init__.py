"""What a user can see of a running computation."""
