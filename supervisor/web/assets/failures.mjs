// failures
