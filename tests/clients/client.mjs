// The checks of the official TypeScript SDK: `@modelcontextprotocol/sdk` (version 1) or `@modelcontextprotocol/client`
// (version 2), whichever the first argument names. The second is the plan of `run.py`, a JSON object. Every check is one
// line on standard output: `ok NAME` or `not ok NAME: why`; what was seen is `fact NAME VALUE`.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const PATIENCE = 15_000; // milliseconds for what has no deadline of its own
const CALLS_AT_ONCE = 10; // right after the gateway was killed

const [, , name, text] = process.argv;
const plan = JSON.parse(text);
// The packages are below target/clients/, not beside this file.
const require = createRequire(`${plan.modules}/`);
const load = path => import(pathToFileURL(require.resolve(path)));

const greeting = [{ name: 'clients', version: '1' }, { capabilities: { elicitation: {} } }];
// The user says yes, whatever is asked.
const consent = async () => ({ action: 'accept', content: { yes: true } });

async function first() {
    const { Client } = await load('@modelcontextprotocol/sdk/client/index.js');
    const { StreamableHTTPClientTransport } = await load('@modelcontextprotocol/sdk/client/streamableHttp.js');
    const { ElicitRequestSchema, ToolListChangedNotificationSchema } = await load('@modelcontextprotocol/sdk/types.js');
    const client = new Client(...greeting);
    client.setRequestHandler(ElicitRequestSchema, consent);
    const transport = new StreamableHTTPClientTransport(new URL(plan.url));
    return {
        client,
        transport,
        revision: () => transport.protocolVersion,
        call: (params, options) => client.callTool(params, undefined, options),
        onChanged: note => client.setNotificationHandler(ToolListChangedNotificationSchema, note),
    };
}

async function second() {
    const { Client, StreamableHTTPClientTransport } = await load('@modelcontextprotocol/client');
    const client = new Client(...greeting);
    client.setRequestHandler('elicitation/create', consent);
    return {
        client,
        transport: new StreamableHTTPClientTransport(new URL(plan.url)),
        revision: () => client.getNegotiatedProtocolVersion(),
        call: (params, options) => client.callTool(params, options),
        onChanged: note => client.setNotificationHandler('notifications/tools/list_changed', note),
    };
}

async function check(what, step) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`nothing after ${PATIENCE} ms`)), PATIENCE);
    });
    try {
        await Promise.race([step(), late]);
        console.log(`ok ${what}`);
    } catch (error) {
        console.log(`not ok ${what}: ${reason(error)}`);
    } finally {
        clearTimeout(timer);
    }
}

const reason = error => String(error.message ?? error).replaceAll('\n', ' ');
const fact = (what, value) => console.log(`fact ${what} ${value}`);

const { client, transport, revision, call, onChanged } = name === 'sdk' ? await first() : await second();
let note;
const nextChange = () => new Promise(resolve => (note = resolve));
onChanged(() => note?.());
const names = async () => (await client.listTools()).tools.map(tool => tool.name);

async function render(input) {
    const steps = [];
    const onprogress = step => steps.push([step.progress, step.total]);
    const result = await call({ name: plan.render_tool, arguments: input }, { onprogress });
    assert.ok(!result.isError, JSON.stringify(result));
    assert.deepEqual(steps, [[1, 3], [2, 3], [3, 3]]);
}

async function checks() {
    await check('initialize', async () => {
        await client.connect(transport);
        fact('revision', revision());
        assert.equal(client.getServerVersion().name, 'dcc-mcp-server');
    });
    await check('tools/list', async () => {
        const listed = await names();
        for (const wanted of [plan.tool, plan.render_tool, 'list_dcc_instances']) {
            assert.ok(listed.includes(wanted), `${wanted} is not in ${listed}`);
        }
    });
    await check('structured result', async () => {
        const result = await call({ name: plan.tool, arguments: plan.arguments });
        assert.ok(!result.isError, JSON.stringify(result));
        for (const [key, value] of Object.entries(plan.expected)) {
            assert.deepEqual(result.structuredContent[key], value);
        }
        assert.deepEqual(JSON.parse(result.content[0].text), result.structuredContent);
    });
    await check('progress', () => render(plan.render));
    await check('elicitation', () => render(plan.render_again));
    await check('a failure is a result', async () => {
        const result = await call({ name: plan.tool, arguments: plan.bad_arguments });
        assert.ok(result.isError && result.content[0].text, JSON.stringify(result));
    });
    await check('an unknown tool is -32602', async () => {
        await assert.rejects(call({ name: 'no_such_tool', arguments: {} }), error => error.code === -32602);
    });
    await check('list_changed', async () => {
        assert.ok(!(await names()).includes(plan.new_tool));
        const changed = nextChange();
        const loaded = await call({ name: 'load_skill', arguments: plan.load });
        assert.ok(!loaded.isError, JSON.stringify(loaded));
        await changed;
        assert.ok((await names()).includes(plan.new_tool), 'listed when the notification arrives');
    });
    await check('the gateway is killed and no call after it is lost', async () => {
        const changed = nextChange();
        console.log('waiting');
        await once(process.stdin, 'data'); // the gateway is dead now
        for (let number = 0; number < CALLS_AT_ONCE; number += 1) {
            const result = await call({ name: 'list_dcc_instances', arguments: {} });
            assert.ok(!result.isError, JSON.stringify(result));
        }
        await changed;
        fact('told', 'list_changed');
        assert.ok((await names()).includes(plan.away_tool), 'the same session, the full list');
        const result = await call({ name: plan.away_tool, arguments: { still: 'here' } });
        assert.deepEqual(result.structuredContent, { still: 'here' });
    });
}

// A call is under way when the gateway is killed: what becomes of it, and of the client.
async function lost() {
    console.log('waiting');
    for (const [what, tool] of [['call', plan.slow_tool], ['next', 'list_dcc_instances']]) {
        try {
            await call({ name: tool, arguments: {} }, { timeout: PATIENCE });
            fact(what, 'answered');
        } catch (error) {
            fact(what, reason(error));
        }
    }
}

if (plan.part === 'checks') {
    await checks();
} else {
    await client.connect(transport);
    await (plan.part === 'pages' ? names().then(listed => fact('pages', listed.length)) : lost());
}
await check('close', () => client.close());
process.exit(0);
