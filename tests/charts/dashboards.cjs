// Checks dashboards against Grafana's own types: what they do not know is a mistake.
const fs = require('fs');
const path = require('path');
const {createGenerator} = require('ts-json-schema-generator');
const Ajv = require('ajv').default;

const [folder, ...files] = process.argv.slice(2);
const types = path.join(folder, 'dashboard.ts');
fs.writeFileSync(types, "import type {Dashboard} from '@grafana/schema';\nexport type Checked = Dashboard;\n");
const options = {path: types, type: 'Checked', skipTypeCheck: true, additionalProperties: false, expose: 'none'};
const valid = new Ajv({strict: false, allErrors: true}).compile(createGenerator(options).createSchema('Checked'));
let wrong = 0;
for (const file of files) {
  if (valid(JSON.parse(fs.readFileSync(file, 'utf8')))) continue;
  for (const error of valid.errors) {
    console.error(`${path.basename(file)}${error.instancePath}: ${error.message} ${JSON.stringify(error.params)}`);
    wrong += 1;
  }
}
process.exit(wrong ? 1 : 0);
