"""What jobs return and raise, as JSON and as text: numbers, arrays, NaN, tracebacks. No process and no
pipe."""
