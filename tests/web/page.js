// Compiles every shader of /jobs.json with the browser's own compiler, runs its jobs, and posts what
// came of both to /result. What is expected is the test's affair (tests/it/web.rs).
//
// modules     [{name, wgsl, entry, subgroups, bindings: [[number, buffer type]]}]
// pipelines   [{module, constants}], compiled and not run
// jobs        [{buffers: [[word]], dispatches: [{module, constants, workgroups: [x, y],
//              bindings: [[number, buffer, byte offset, byte size]]}], read: [buffer]}]
//
// The answer has the same lists: the messages of a module, or null for one that this adapter has no
// subgroups for; the error of a pipeline, or null; the words of a job's buffers, or its error.

async function post(answer) {
  await fetch("/result", { method: "POST", body: JSON.stringify(answer) });
}

// What a refusal says; a promise of one, too.
const refusal = (attempt) => attempt.then(() => null, (error) => String(error.message));

class Shader {
  constructor(device, { name, wgsl, entry, subgroups, bindings }) {
    this.device = device;
    // Demanded here, and refused by naga.
    this.text = (subgroups ? "enable subgroups; " : "") + wgsl;
    this.entry = entry;
    device.pushErrorScope("validation");
    this.module = device.createShaderModule({ label: name, code: this.text });
    this.groups = device.createBindGroupLayout({
      label: name,
      entries: bindings.map(([binding, type]) => ({
        binding,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type },
      })),
    });
    this.layout = device.createPipelineLayout({ bindGroupLayouts: [this.groups] });
    this.failed = device.popErrorScope();
    this.pipelines = new Map();
  }

  // Errors and warnings, each with the line that it is about.
  async messages() {
    const lines = this.text.split("\n");
    const { messages } = await this.module.getCompilationInfo();
    const told = messages.filter(({ type }) => type !== "info").map(
      ({ type, message, lineNum }) =>
        `${type}: ${message}\n  line ${lineNum}: ${(lines[lineNum - 1] ?? "").trim()}`,
    );
    const failed = await this.failed;
    return failed && told.length === 0 ? [`error: ${failed.message}`] : told;
  }

  // Compiled once for the same constants.
  pipeline(constants) {
    const key = JSON.stringify(constants);
    if (!this.pipelines.has(key)) {
      this.pipelines.set(key, this.device.createComputePipelineAsync({
        label: this.module.label,
        layout: this.layout,
        compute: { module: this.module, entryPoint: this.entry, constants },
      }));
    }
    return this.pipelines.get(key);
  }
}

// The words of the buffers that are to be read, after all dispatches.
async function run(device, shaders, { buffers, dispatches, read }) {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.UNIFORM
    | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const pipelines = await Promise.all(
    dispatches.map(({ module, constants }) => shaders[module].pipeline(constants)),
  );
  device.pushErrorScope("validation");
  const made = buffers.map((words) => {
    const buffer = device.createBuffer({ size: 4 * words.length, usage });
    device.queue.writeBuffer(buffer, 0, new Uint32Array(words));
    return buffer;
  });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  dispatches.forEach(({ module, workgroups, bindings }, i) => {
    pass.setPipeline(pipelines[i]);
    pass.setBindGroup(0, device.createBindGroup({
      layout: shaders[module].groups,
      entries: bindings.map(([binding, buffer, offset, size]) => ({
        binding,
        resource: { buffer: made[buffer], offset, size },
      })),
    }));
    pass.dispatchWorkgroups(...workgroups);
  });
  pass.end();
  const staging = read.map((buffer) => {
    const { size } = made[buffer];
    const copy = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    encoder.copyBufferToBuffer(made[buffer], 0, copy, 0, size);
    return copy;
  });
  device.queue.submit([encoder.finish()]);
  const failed = await device.popErrorScope();
  if (failed) {
    throw failed;
  }
  await Promise.all(staging.map((copy) => copy.mapAsync(GPUMapMode.READ)));
  const words = staging.map((copy) => Array.from(new Uint32Array(copy.getMappedRange())));
  [...made, ...staging].forEach((buffer) => buffer.destroy());
  return words;
}

async function main() {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) {
    return { adapter: null };
  }
  const subgroups = adapter.features.has("subgroups");
  // Nothing but the default limits: what is promised everywhere.
  const device = await adapter.requestDevice({ requiredFeatures: subgroups ? ["subgroups"] : [] });
  device.lost.then(({ message }) => post({ error: `the device was lost: ${message}` }));

  const { modules, pipelines, jobs } = await (await fetch("/jobs.json")).json();
  const started = performance.now();
  const shaders = modules.map((module) =>
    module.subgroups && !subgroups ? null : new Shader(device, module));
  const messages = await Promise.all(shaders.map((shader) => shader && shader.messages()));
  const checked = performance.now();
  const refused = await Promise.all(pipelines.map(({ module, constants }) =>
    shaders[module] && refusal(shaders[module].pipeline(constants))));
  const compiled = performance.now();
  const results = [];
  // Some at a time: a job on its own mostly waits.
  for (let at = 0; at < jobs.length; at += 32) {
    const some = jobs.slice(at, at + 32).map((job) =>
      run(device, shaders, job).catch((error) => String(error.message)));
    results.push(...await Promise.all(some));
  }
  return {
    adapter: `${adapter.info.vendor} ${adapter.info.architecture}`,
    modules: messages,
    pipelines: refused,
    jobs: results,
    seconds: [checked - started, compiled - checked, performance.now() - compiled]
      .map((time) => time / 1e3),
  };
}

post(await main().catch((error) => ({ error: String(error.stack ?? error) })));
