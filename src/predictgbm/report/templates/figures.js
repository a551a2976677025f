document.addEventListener("DOMContentLoaded", function () {
  function svgOf(figure, done) {
    const box = figure.viewBox.baseVal;
    const copy = figure.cloneNode(true);
    copy.setAttribute("width", box.width);
    copy.setAttribute("height", box.height);
    done(new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" }));
  }
  // Three pixels for each of the figure's own.
  function pngOf(figure, done) {
    const box = figure.viewBox.baseVal;
    svgOf(figure, function (blob) {
      const reader = new FileReader();
      const image = new Image();
      reader.onload = function () { image.src = reader.result; };
      image.onload = function () {
        const canvas = document.createElement("canvas");
        canvas.width = 3 * box.width;
        canvas.height = 3 * box.height;
        const pen = canvas.getContext("2d");
        pen.fillStyle = "white";
        pen.fillRect(0, 0, canvas.width, canvas.height);
        pen.drawImage(image, 0, 0, canvas.width, canvas.height);
        canvas.toBlob(done, "image/png");
      };
      // From a data address: a canvas may refuse to give back what came from elsewhere.
      reader.readAsDataURL(blob);
    });
  }
  document.querySelectorAll(".gbm-save").forEach(function (link) {
    link.addEventListener("click", function (event) {
      event.preventDefault();
      const kind = link.dataset.kind;
      (kind === "png" ? pngOf : svgOf)(link.closest("figure").querySelector("svg"), function (blob) {
        const page = document.createElement("a");
        page.href = URL.createObjectURL(blob);
        page.download = link.dataset.name + "." + kind;
        page.click();
        URL.revokeObjectURL(page.href);
      });
    });
  });
});
