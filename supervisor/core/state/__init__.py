"""The present state: jobs, workers, sums, history. It is changed by records. No decision may be made here."""
