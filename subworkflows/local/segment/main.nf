/*
    Tumour labels and tissue maps. In this version the samplesheet gives the tumour labels, and the tissue maps or the
    atlas' own, so an exam passes as it is; segmentation of the tumour and of tissue belongs here.
*/

workflow SEGMENT {
    take:
    ch_exam // [meta, exam folder]

    main:
    ch_segmented = ch_exam
    exam = ch_segmented

    emit:
    exam // [meta, exam folder with tumour labels and tissue maps]
}
