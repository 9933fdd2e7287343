(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const choose = (id, values, act) => {
    const select = document.getElementById(id);
    [...new Set(values)].sort().forEach((value) => select.add(new Option(value, value)));
    select.parentElement.hidden = select.length < 2;
    select.addEventListener("change", () => act(select.value));
  };
  document.querySelector(".controls").hidden = false;
  const rows = all(".filterable tbody tr");
  const filter = () => rows.forEach((row) => {
    const [verdict, scale] = ["by-verdict", "by-scale"].map((id) => document.getElementById(id).value);
    row.hidden = (verdict && row.dataset.verdict !== verdict) || (scale && row.dataset.scale !== scale);
  });
  choose("by-verdict", rows.map((row) => row.dataset.verdict), filter);
  choose("by-scale", rows.map((row) => row.dataset.scale), filter);
  const seed = /-s(\d+)-[0-9a-f]{8}/;
  const lines = all("svg [data-run]").filter((line) => seed.test(line.dataset.run));
  choose("by-seed", lines.map((line) => line.dataset.run.match(seed)[1]), (value) => lines.forEach((line) => {
    const own = line.dataset.run.match(seed)[1] === value;
    line.querySelectorAll("path").forEach((path) => {
      path.classList.toggle("away", value !== "" && !own);
      path.classList.toggle("here", value !== "" && own);
    });
  }));
  const number = (text) => { const match = text.replace("−", "-").match(/[-+]?\d[\d,]*\.?\d*/); return match ? parseFloat(match[0].replaceAll(",", "")) : NaN; };
  all("table.sortable").forEach((table) => all("th", table).forEach((head, column) => head.addEventListener("click", () => {
    const body = table.tBodies[0], down = head.dataset.down !== "1";
    all("th", table).forEach((other) => delete other.dataset.down);
    head.dataset.down = down ? "1" : "0";
    const cell = (row) => row.cells[column] ? row.cells[column].innerText.trim() : "";
    const groups = [];
    [...body.rows].forEach((row) => row.classList.contains("more") ? groups.at(-1).push(row) : groups.push([row]));
    groups.sort(([a], [b]) => {
      const [x, y] = [cell(a), cell(b)], [m, n] = [number(x), number(y)];
      const order = isNaN(m) || isNaN(n) ? x.localeCompare(y) : m - n;
      return down ? order : -order;
    }).flat().forEach((row) => body.append(row));
  })));
  all("table.data").forEach((table) => {
    const text = [...table.rows].map((row) => [...row.cells].map((cell) => `"${cell.innerText.replaceAll('"', '""')}"`).join(",")).join("\n");
    const link = document.createElement("a");
    link.textContent = "CSV";
    link.download = `${table.dataset.name}.csv`;
    link.href = "data:text/csv;charset=utf-8," + encodeURIComponent(text);
    table.closest("details").append(link);
  });
})();
