// Frames of a way, such as the traversal of a latent: a slider goes along it.
instruments.start("frames", (root, data) => {
  const part = name => root.querySelector(name), choice = name => part(`[data-choice=${name}]`), image = part("img");
  choice("way").replaceChildren(...data.ways.map((way, value) => {
    const option = document.createElement("option");
    option.value = value; option.textContent = way.name;
    return option;
  }));
  choice("way").parentElement.hidden = data.ways.length < 2;
  const way = () => data.ways[+choice("way").value];
  const draw = () => {
    const frame = way().frames[+choice("place").value];
    image.src = frame.picture; image.alt = `${way().name}, ${frame.caption}`;
    image.width = frame.width; image.height = frame.height;
    part(".caption").textContent = frame.caption;
    choice("place").setAttribute("aria-valuetext", frame.caption);
  };
  const begin = () => { choice("place").max = way().frames.length - 1; choice("place").value = way().first; draw(); };
  let playing = null;
  part("[data-act=play]").addEventListener("click", event => {
    if (playing) { clearInterval(playing); playing = null; }
    else {
      let step = 1;
      playing = setInterval(() => {
        const next = +choice("place").value + step;
        if (next < 0 || next >= way().frames.length) step = -step;
        choice("place").value = +choice("place").value + step; draw();
      }, 400);
    }
    event.target.setAttribute("aria-pressed", Boolean(playing));
  });
  part("[data-act=enlarge]").addEventListener("click", () => enlarge(image));
  choice("way").addEventListener("input", begin);
  choice("place").addEventListener("input", draw);
  begin();
  return {};
});
