"""What shows that n2kit, or a plug-in of it, computes what it says."""
