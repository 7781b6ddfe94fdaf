"""What fits this library into others, a module for each; none is imported before it is asked for."""
