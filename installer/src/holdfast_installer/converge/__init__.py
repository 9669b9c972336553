"""Changing the hosts: Ansible as a child process, its events as progress and journal."""
