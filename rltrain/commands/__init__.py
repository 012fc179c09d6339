"""One module per command of the `rltrain` script, each with `main(args)`."""
