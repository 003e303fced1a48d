"""Other trainers, each a script that runs in a process of its own and prints one JSON object."""
