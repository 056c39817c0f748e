"""What every room of the package may use: sizes as text, options, errors."""
