"""Which demonstrations to collect next: eight acquisitions, dataset maps, pools with outliers, rounds."""
