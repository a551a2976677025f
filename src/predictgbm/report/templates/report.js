document.addEventListener("DOMContentLoaded", function () {
  // One patient is followed through all panels and figures.
  function light(event) {
    const patient = event.target.closest && event.target.closest(".gbm-patient");
    document.querySelectorAll(".gbm-figure").forEach(function (figure) {
      figure.classList.toggle("gbm-dim", Boolean(patient) && figure.querySelector(".gbm-patient") !== null);
    });
    document.querySelectorAll(".gbm-patient").forEach(function (mark) {
      mark.classList.toggle("gbm-lit", Boolean(patient) && mark.dataset.patient === patient.dataset.patient);
    });
  }
  document.querySelectorAll(".gbm-figure").forEach(function (figure) {
    figure.addEventListener("mouseover", light);
    figure.addEventListener("mouseleave", light);
  });
  document.addEventListener("click", function (event) {
    if (event.target.matches(".gbm-card img")) {
      event.target.closest(".gbm-card").classList.toggle("gbm-large");
    }
  });
  document.querySelectorAll(".gbm-copy").forEach(function (button) {
    button.addEventListener("click", function () {
      const range = document.createRange();
      range.selectNodeContents(button.previousElementSibling);
      const selection = window.getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      // The selection works in files opened from disk, where the clipboard interface may be refused.
      button.textContent = document.execCommand("copy") ? "Copied" : "Selected: press Ctrl+C";
    });
  });
  if (window.jQuery && jQuery.fn.tablesorter) {
    // The true minus sign is no number to the sorter.
    const plain = function (cell) { return cell.textContent.replace("−", "-"); };
    jQuery(".gbm-table.sortable").tablesorter({ textExtraction: plain });
  }
});
