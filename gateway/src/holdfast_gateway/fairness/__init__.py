"""Who goes first: lanes, teams' shares, and saying no before everybody waits."""
