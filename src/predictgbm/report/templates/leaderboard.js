document.addEventListener("DOMContentLoaded", function () {
  // A cell sorts by its <data> value where it has one, else by its text; empty values stay last.
  function key(row, column) {
    const cell = row.cells[column];
    const data = cell.querySelector("data");
    const text = data ? data.value : cell.textContent.trim().replace("−", "-");
    if (text === "" || text === "–") return null;
    const number = Number(text);
    return Number.isNaN(number) ? text.toLowerCase() : number;
  }
  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b));
  }
  document.querySelectorAll("table.sortable").forEach(function (table) {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach(function (head, column) {
      function sort() {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        Array.from(body.rows)
          .map(function (row) { return [key(row, column), row]; })
          .sort(function (a, b) {
            if (a[0] === null || b[0] === null) return (a[0] === null) - (b[0] === null);
            return down ? compare(b[0], a[0]) : compare(a[0], b[0]);
          })
          .forEach(function (pair) { body.append(pair[1]); });
      }
      head.tabIndex = 0;
      head.addEventListener("click", sort);
      head.addEventListener("keydown", function (event) {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
      });
    });
  });
});
