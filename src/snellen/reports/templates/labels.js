document.getElementById("save").addEventListener("click", function () {
  var form = document.getElementById("review");
  var rows = Array.prototype.map.call(form.querySelectorAll(".suspect"), function (row) {
    return {
      id: row.dataset.id,
      label: row.dataset.label,
      image: row.dataset.image,
      action: row.querySelector("input[type=radio]:checked").value,
      correct: row.querySelector("input[list]").value
    };
  });
  var content = { data: form.dataset.name, fingerprint: form.dataset.fingerprint, corrections: rows };
  var link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
  link.download = "labels.json";
  link.click();
});
