"""Which pool arrays get their data from: handlers of a context, activation of the process."""
