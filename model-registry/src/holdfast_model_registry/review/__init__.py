"""Where each revision stands on its way to being served, and who let it go on."""
