"""What really happened: predicted against realised ΔPA, in numbers and in words."""
