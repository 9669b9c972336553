"""Looking at the hosts: facts read over SSH, never changed."""
