"""What is known now: jobs, workers, sums, history. It follows records. No decision."""
