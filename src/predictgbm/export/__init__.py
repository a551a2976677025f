"""Plans in the formats of the clinic, on the frame of the patient's own DICOM series."""
