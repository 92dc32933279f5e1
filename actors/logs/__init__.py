"""The central log: events go to the stream `LOGS`, are read from there, and are shipped to MongoDB."""
