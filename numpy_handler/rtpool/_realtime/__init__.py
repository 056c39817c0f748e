"""Real-time sections: the loop, what it does to the process, and its report. `rtpool.realtime` is the way in."""
