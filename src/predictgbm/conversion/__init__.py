"""From a raw exam, DICOM or NIfTI, to one clean NIfTI file per contrast in the exam's own space."""
