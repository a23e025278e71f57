"""What the command line does: one file and one public function for each verb."""
